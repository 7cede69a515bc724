

prepare()
IMPORTED, CALLBACKS = frozenset(sys.modules), atexit._ncallbacks()
run(serve())
