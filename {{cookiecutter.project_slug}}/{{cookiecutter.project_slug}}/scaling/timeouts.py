"""How long each hop may take, in seconds; settings and deploy/gunicorn.conf.py take their figures from here."""

# A request, from the inside out: who is further out waits longer. A system check holds the order of these lines.
CACHE_SOCKET = 0.5  # a cache on the network answers in 1 ms; connecting and reading may each wait once within a second
DATABASE_CONNECT = 2  # libpq's minimum, for each address of the host name
DATABASE_LOCK = 3  # leaves a statement that gets its lock late the time to run
DATABASE_STATEMENT = 5  # a page needs several; what takes longer belongs in a background job
DATABASE_TCP_USER = 6  # a live server has cancelled the statement by now; one that acknowledges no packet is gone
OUTGOING = 7  # HTTP and mail: the other side has a database too
REQUEST = 10  # readers have left by then; None lets a request wait for the database without end
GRACEFUL = 15  # gunicorn on SIGTERM: a request that has just begun still ends
PROXY = 20  # nginx or the load balancer: change it there and here

# Connections between two uses
PROXY_KEEPALIVE = 60  # the usual default of load balancers
KEEPALIVE = 75  # gunicorn: longer, or the proxy sends a request into a connection that is being closed
DATABASE_KEEPALIVE = 10  # a server that vanished is noticed after two of these, without a request
DATABASE_IDLE_IN_TRANSACTION = 15  # longer than any request: whoever began the transaction is gone
DATABASE_MAX_AGE = 600  # follows a failover by DNS, and frees what a PostgreSQL process gathers in memory

# Whatever serves no requests: migrations, the shell, scripts
COMMAND_LOCK = 2  # a migration that waits for its lock gives up before the requests queued behind it do
COMMAND_STATEMENT = 3600  # indexing a large table takes its time; what was forgotten ends
COMMAND_IDLE_IN_TRANSACTION = 3600  # a shell at lunch
{% if cookiecutter.use_celery %}

# Background tasks
BROKER = 0.5  # Redis or RabbitMQ answers in 1 ms; who sends a task waits for a connection, an answer, and both again
TASK_SHUTDOWN = 20  # a worker on SIGTERM: tasks that still run then go back to their queues
TASK_SOFT = 300  # raises SoftTimeLimitExceeded in the task; what takes longer should be several tasks
TASK_HARD = 330  # ends the task's process
TASK_VISIBILITY = 900  # Redis gives a task that was not acknowledged to another worker: no task may take so long
{% endif %}

{% if cookiecutter.media_storage == "s3" %}
# Uploaded files. boto3 tries twice, with a pause of up to a second, and asks before it sends a file whether the service
# will have it, which is another second each: what hangs costs 8 seconds, less than REQUEST
MEDIA_CONNECT = 1
MEDIA_READ = 2.5  # the service answers when it has the whole file

{% endif %}
READY = 2  # /readyz waits this long for the database, on a connection of its own
DRAIN = 5  # from SIGTERM until requests are refused: load balancers ask /readyz every few seconds
DATABASE_SUSPECT = 0.5  # a request that waits this long for an answer has the server probed
RETRY_AFTER = 5  # what a 503 asks of clients: once its database is back, the site needs less
{% if cookiecutter.use_replica %}

# Replicas, each asked by one thread per process
REPLICA_INTERVAL = 0.5  # between two questions: a few hundred processes cost a server 1 % of a core
REPLICA_ANSWER = 0.5  # with the interval, at most a second until one that hangs is left alone
REPLICA_LAG = 3  # what a page may be behind, in all: a replica that applies large writes for a moment stays in use
REPLICA_PAUSE = 3  # for one that failed: nobody runs into it again at once, and it is back within 5 s
REPLICA_PIN = 6  # whoever wrote reads from the primary: longer than the lag, by 1 s of rounding and 2 s between clocks
{% endif %}
