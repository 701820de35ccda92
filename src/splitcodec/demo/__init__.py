"""The whole trip for a visitor: photographs, both shores, a slow link between them, and a page that shows it."""
