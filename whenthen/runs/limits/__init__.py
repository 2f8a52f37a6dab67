"""May a run start now, and who has the places that it needs?"""
