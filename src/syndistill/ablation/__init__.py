"""What each signal is worth: a plan as data, a runner that can be killed, a report made from rows alone."""
