# How many seconds Dask takes for so many functions: python3 daskpeer.py function|program COUNT
import subprocess
import sys
import time

import dask
from dask.distributed import Client, LocalCluster


def function(i):
    return i


def program(i):
    return subprocess.run(["/bin/true"], check=True).returncode


def main():
    dask.config.set({"distributed.worker.daemon": True})
    what, count = {"function": function, "program": program}[sys.argv[1]], int(sys.argv[2])
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster, Client(cluster) as client:
        client.gather(client.map(what, range(-100, 0), pure=False))
        began = time.monotonic()
        client.gather(client.map(what, range(count), pure=False))
        print(time.monotonic() - began)


if __name__ == "__main__":
    main()
