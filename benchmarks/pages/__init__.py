"""Blocks of figures in the pages of docs/, each written out of report files."""
