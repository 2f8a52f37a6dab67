"""Which interpreters wait with their imports done, so that a run begins at once? And is what they have loaded still what there is?"""
