"""The AsyncAPI document can be made, and describes every parameter of every address."""

from __future__ import annotations

import json

from whenthen.engine.process.asyncapi.asyncapi_document import CHANNELS, asyncapi_document


def test_every_parameter_of_every_channel_is_described() -> None:
    document = json.loads(asyncapi_document("1.2.3"))
    assert list(document["channels"]) == [channel.name for channel in CHANNELS]
    for channel in CHANNELS:
        parameters = document["channels"][channel.name]["parameters"]
        assert channel.address.count("{") == len(parameters)
        assert all(parameter["description"] for parameter in parameters.values())
