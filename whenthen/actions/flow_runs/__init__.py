"""What do actions do with a flow run that is there already?"""
