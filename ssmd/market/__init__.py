"""What an event is: pure values and the rules that hold for them."""
