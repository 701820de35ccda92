"""The edge's shore: a packet in, an answer out. Never imports the device, nor anything that trains."""
