"""For what does a run wait that is paused or suspended, and what lets it go on?"""
