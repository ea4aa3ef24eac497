"""How long each hop may take, in seconds: innermost first, each shorter than the one around it.

Who waits longest gives up last, so that the hop nearest to a fault reports it. A system check holds the order. Settings
and deploy/gunicorn.conf.py take their figures from here; whoever changes the proxy changes PROXY and PROXY_KEEPALIVE.
"""

# One request, from the inside out

CACHE_SOCKET = 0.5  # a cache on the network answers in 1 ms; connecting and reading may each wait once within a second
DATABASE_CONNECT = 2  # libpq's minimum; per address that the host name has
DATABASE_LOCK = 3  # leaves a statement that got its lock late time to run
DATABASE_STATEMENT = 5  # a page needs several; a slower statement belongs in a background job
DATABASE_TCP_USER = 6  # a server that acknowledges no packet is gone; one that does has ended the statement by itself
OUTGOING = 7  # HTTP and mail: above what the other side's own database may take, below the request
REQUEST = 10  # people have left by then; None or 0 lets a request wait without end
GRACEFUL = 15  # gunicorn on SIGTERM: a request that began at the last moment still ends
PROXY = 20  # nginx or the load balancer

LADDER = (
    "CACHE_SOCKET",
    "DATABASE_CONNECT",
    "DATABASE_LOCK",
    "DATABASE_STATEMENT",
    "DATABASE_TCP_USER",
    "OUTGOING",
    "REQUEST",
    "GRACEFUL",
    "PROXY",
)

# Connections that wait for the next request

PROXY_KEEPALIVE = 60  # the default of nginx and of most load balancers
KEEPALIVE = 75  # gunicorn: longer, or the proxy sends a request into a connection that is being closed
DATABASE_KEEPALIVE = 10  # an idle connection whose server vanished is found dead after three of these
DATABASE_IDLE_IN_TRANSACTION = 15  # longer than any request: what is left open then has lost its owner
DATABASE_MAX_AGE = 600  # follows a failover by DNS, and frees the memory that a server process gathers

# Processes that serve no requests: migrations, the shell, scripts

COMMAND_LOCK = 2  # below DATABASE_LOCK: a migration gives up its lock before the requests queued behind it give up
COMMAND_STATEMENT = 3600  # the index of a large table takes its time; an hour ends what was forgotten
COMMAND_IDLE_IN_TRANSACTION = 3600

RETRY_AFTER = 5  # what a 503 asks a client to wait: longer than the site needs once its database is back
