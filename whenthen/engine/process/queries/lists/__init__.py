"""What does a list of the API show, of what the history has and of what the streams have more?"""
