"""Other programs that write texts with the same weights, each behind the interface `bench.bursts.Side`.

One that is not on this machine raises PeerMissing when it is entered; the message says what to do.
llama.cpp's programs are built from `vendor/llama.cpp` of llama-cpp-python's source distribution, with
`cmake -DLLAMA_BUILD_SERVER=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_UI=OFF -DCMAKE_BUILD_TYPE=Release` and the
targets llama-server and llama-batched-bench.
"""

from bench.peers.errors import PeerError, PeerFailed, PeerMissing

__all__ = ["PeerError", "PeerFailed", "PeerMissing"]
