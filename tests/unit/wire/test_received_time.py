"""The receive time of a message without decoding it."""

from hypothesis import given

from ssmd.market.events import Event, Gap
from ssmd.wire.normalized import encode, received_ns
from tests.unit.wire.strategies import events


@given(events)
def test_the_receive_time_lies_where_every_schema_has_it(event: Event) -> None:
    assert received_ns(encode(event)) == (event.to_ns if isinstance(event, Gap) else event.received_ns)
