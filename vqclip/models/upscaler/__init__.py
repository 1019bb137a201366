"""Upscalers: networks that make an image two, three, four times as large. Importing this loads none of them.

compact.py is the network that comes with vqclip; load.py reads a file of any network that spandrel knows; enlarge.py
reaches any factor from 2 to 8 with one of them, tile by tile.
"""

BUNDLED = "realesr-animevideov3"  # by the catalogue's name
FACTOR = 4  # where none is asked for
FACTORS = (2, 8)  # the least and the most
TILE = 256  # input pixels a side that are enlarged at once, without what is around them
