"""What do the values, operators and functions of CEL do at run time, and what do they cost?"""
