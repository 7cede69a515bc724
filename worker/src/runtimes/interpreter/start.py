

prepare()
IMPORTED = frozenset(sys.modules)
run(serve(socket.socket(fileno=REQUESTS_FD)))
