"""The wire: symbols <-> bytes <-> packet, and the bundle folder that both shores share.   Imports nothing but errors.

tables.py    integer frequencies, gains and ranges; the only numbers that both shores must agree on
coder.py     stage 3: symbols <-> payload bytes (ANS)
packet.py    stage 4: payload bytes <-> packet
answer.py    what comes back over the link
manifest.py  manifest.json, checked key by key
bundle.py    the folder or zip of graphs, tables and manifest
archive.py, graphs.py, npz.py   keep a stranger's bundle harmless: its files, its graphs, its arrays
"""
