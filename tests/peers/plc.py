"""A Modbus TCP server that is not ours (pymodbus): holding registers 0..99, register 0 counts up, others hold.

Usage: plc.py PORT
"""

import asyncio
import sys

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


async def main():
    device = SimDevice(id=1, simdata=[SimData(0, datatype=DataType.REGISTERS, values=[0] * 100)])
    server = ModbusTcpServer(device, address=("127.0.0.1", int(sys.argv[1])))
    await server.serve_forever(background=True)
    print("listening", flush=True)
    n = 0
    while True:
        n = (n + 1) % 65536
        await server.async_setValues(1, 3, 0, [n])
        await asyncio.sleep(0.05)


asyncio.run(main())
