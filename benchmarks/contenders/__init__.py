"""This project's scheduler and the ways to do without it, each behind the two methods of `contenders.interface`."""
