"""How long each hop may take, in seconds, and what happens then; scaling/ and gunicorn take them from here."""

# A request, from the inside out: who is further out waits longer. A system check holds the order of these lines.
CACHE_SOCKET = 0.5  # to connect, and to answer, which takes 1 ms: then the value counts as missing, the circuit opens
DATABASE_CONNECT = 2  # libpq's minimum, for each address of the host name: then a 503, at once while it stays so
DATABASE_LOCK = 3  # then the statement fails; one that gets its lock just in time still has time to run
DATABASE_STATEMENT = 5  # a page needs several; then it is canceled: what takes longer belongs in a background job
DATABASE_TCP_USER = 6  # packets not acknowledged: then the server is gone, for one that is there has canceled by now
OUTGOING = 7  # HTTP and mail: then the caller gets an error; the other side has a database, too
REQUEST = 10  # then a request's wait for the database is ended, with a 503; None lets it wait without end
GRACEFUL = 15  # gunicorn on SIGTERM: then requests that still run are cut off; one that had just begun is done by then
PROXY = 20  # nginx or the load balancer: then it answers 504 itself; change it there and here

# Connections between two uses
PROXY_KEEPALIVE = 60  # the usual default of load balancers: then they close it
KEEPALIVE = 75  # then gunicorn closes it: after the proxy has, which could otherwise be sending a request
DATABASE_KEEPALIVE = 10  # then TCP probes it: a server that vanished is noticed after two of these, without a request
DATABASE_IDLE_IN_TRANSACTION = 15  # longer than any request: whoever began the transaction is gone; it is rolled back
DATABASE_MAX_AGE = 600  # then it is made anew: follows a failover by DNS, frees what PostgreSQL gathers in memory

# Whatever serves no requests: migrations, the shell, scripts{{ '; tasks, but for what they have below' if cookiecutter.use_celery else '' }}
COMMAND_LOCK = 2  # then a migration lets go, before the requests fail that queue behind it, and tries again
COMMAND_STATEMENT = 3600  # then it is canceled: indexing a large table takes its time, what was forgotten ends
COMMAND_IDLE_IN_TRANSACTION = 3600  # a shell at lunch: then its transaction is rolled back
{% if cookiecutter.use_celery %}

# Background tasks
BROKER = 0.5  # to connect, and to answer, which takes 1 ms: then once more, and then who sends a task gets an error
TASK_SHUTDOWN = 20  # a worker on SIGTERM: then tasks that still run go back to their queues
TASK_SOFT = 300  # then SoftTimeLimitExceeded is raised in the task; its statements are canceled after as long
TASK_HARD = 330  # then the task's process is killed
TASK_VISIBILITY = 900  # then Redis gives a task that was not acknowledged to another worker: none may take so long
{% endif %}

{% if cookiecutter.media_storage == "s3" %}
# Uploaded files: then the request fails. boto3 tries twice with a pause of up to 1 s, and before it sends a file waits
# 1 s to be told to. A service that accepts connections and hangs costs (1 + 2.5) + 1 + (1 + 2.5) = 8 s: under REQUEST.
MEDIA_CONNECT = 1
MEDIA_READ = 2.5  # the service answers when it has the whole file

{% endif %}
CLIENT = 10  # for more of a request that has begun, in nginx and in gunicorn: then it is given up
READY = 2  # /readyz for the database, on a connection of its own: then it answers 503
DRAIN = 5  # from SIGTERM, for load balancers to see /readyz answer 503: then new requests are refused
DATABASE_SUSPECT = 0.5  # a request for an answer of the database: then that is probed
RETRY_AFTER = 5  # then clients may ask again after a 503: once its database is back, the site needs less
{% if cookiecutter.use_replica %}

# Replicas, each asked by one thread per process
REPLICA_INTERVAL = 0.5  # then it is asked again: a few hundred processes cost a server 1 % of a core
REPLICA_ANSWER = 0.5  # then it has failed; with the interval, at most a second after it began to hang
REPLICA_LAG = 3  # behind in all: then it is not read from; one that applies large writes for a moment stays in use
REPLICA_PAUSE = 3  # then one that failed is tried again: nobody runs into it at once, and it is back within 5 s
REPLICA_PIN = 6  # then who wrote reads from them again: longer than the lag, by 1 s of rounding and 2 s between clocks
{% endif %}
