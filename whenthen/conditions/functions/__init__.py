"""Which functions does a condition know, what does each take, give and cost?"""
