"""Who sends to the webhooks, when was each heard last, and what of theirs was refused and may be sent again?"""
