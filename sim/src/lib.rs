//! The plant in one thread: the code of agent, hub and bridge on a virtual clock, a simulated disk and a simulated network.
