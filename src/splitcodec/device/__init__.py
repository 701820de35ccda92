"""The device's shore: a picture in, a packet out. Never imports the edge, nor anything that trains."""
