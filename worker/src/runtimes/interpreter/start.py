

prepare()
IMPORTED = frozenset(sys.modules)
run(serve())
