"""The subjects and messages of our streams, as an AsyncAPI document."""
