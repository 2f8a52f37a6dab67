"""What do the files say? Those of a folder with their bytes, and YAML as plain data with the place of everything."""
