"""Which subjects and messages have our streams? The AsyncAPI document."""
