"""An FTP server by pyftpdlib, for the tests of the files driver: MLSD and MLST, plain.

Arguments: folder, port, user, file with the password. Ends when stdin does.
"""

import os
import sys
import threading

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer


def main():
    folder, port, user, password = sys.argv[1:]
    with open(password) as file:
        secret = file.readline().rstrip("\n")
    authorizer = DummyAuthorizer()
    authorizer.add_user(user, secret, folder, perm="elrdfmwMT")
    handler = FTPHandler
    handler.authorizer = authorizer
    handler.auth_failed_timeout = 0
    server = FTPServer(("127.0.0.1", int(port)), handler)
    print('{"ready": true}', flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    server.serve_forever()


main()
