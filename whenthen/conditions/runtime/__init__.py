"""What do the values and operators of CEL do at run time, and what do they cost?"""
