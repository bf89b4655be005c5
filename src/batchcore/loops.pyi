from batchcore.dispatcher import Dispatcher

LONGEST_TURN_NS: int

class LoopDispatcher(Dispatcher): ...
