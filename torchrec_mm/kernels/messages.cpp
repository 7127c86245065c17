// Messages between the ranks of a host, over connected stream sockets. See messages.py.

#include <cerrno>
#include <cstdint>
#include <poll.h>
#include <sys/socket.h>
#include <vector>

namespace {

enum : int64_t { kDone = -1, kTimeout = -2, kInterrupted = -3 };  // else the rank that has gone

// What did not fit into a socket yet, from `sent` on.
struct Queue {
    std::vector<char> bytes;
    size_t sent = 0;
};

struct Ranks {
    std::vector<int32_t> sockets;  // -1 for this rank
    std::vector<Queue> queues;
};

bool has_gone() { return errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR; }

// Sends what there is room for; how much it was, or -1 if the other has gone.
int64_t send_some(int32_t socket, const char* bytes, size_t size) {
    size_t sent = 0;
    while (sent < size) {
        const ssize_t n = send(socket, bytes + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && has_gone()) return -1;
        if (n < 0 && errno != EINTR) break;
        if (n > 0) sent += n;
    }
    return sent;
}

// False if the other has gone.
bool flush(int32_t socket, Queue& queue) {
    const size_t left = queue.bytes.size() - queue.sent;
    if (!left) return true;
    const int64_t sent = send_some(socket, queue.bytes.data() + queue.sent, left);
    if (sent < 0) return false;
    queue.sent += sent;
    if (queue.sent == queue.bytes.size()) queue = Queue();
    return true;
}

}  // namespace

extern "C" void* open_ranks(const int32_t* sockets, int64_t ranks) {
    return new Ranks{{sockets, sockets + ranks}, std::vector<Queue>(ranks)};
}

extern "C" void close_ranks(void* opened) { delete static_cast<Ranks*>(opened); }

// Never waits: what a socket does not take is copied, and sent while this rank receives.
extern "C" int64_t post(void* opened, const char* const* messages, const int64_t* sizes) {
    Ranks& ranks = *static_cast<Ranks*>(opened);
    for (size_t rank = 0; rank < ranks.sockets.size(); ++rank) {
        if (ranks.sockets[rank] < 0 || !sizes[rank]) continue;
        Queue& queue = ranks.queues[rank];
        const char* end = messages[rank] + sizes[rank];
        if (!flush(ranks.sockets[rank], queue)) return rank;
        int64_t sent = 0;
        if (queue.bytes.empty()) {
            sent = send_some(ranks.sockets[rank], messages[rank], sizes[rank]);
            if (sent < 0) return rank;
        }
        queue.bytes.insert(queue.bytes.end(), messages[rank] + sent, end);
    }
    return kDone;
}

// Fills the messages and moves on in them, so that an interrupted call can be made again; with
// `flushes`, until what was posted has gone, too.
extern "C" int64_t receive(void* opened, char** messages, int64_t* sizes, int32_t flushes,
                           int64_t timeout_ms) {
    Ranks& ranks = *static_cast<Ranks*>(opened);
    std::vector<pollfd> waited;
    while (true) {
        waited.clear();
        bool is_done = true;
        for (size_t rank = 0; rank < ranks.sockets.size(); ++rank) {
            const int32_t socket = ranks.sockets[rank];
            if (socket < 0) continue;
            while (sizes[rank]) {
                const ssize_t n = recv(socket, messages[rank], sizes[rank], MSG_DONTWAIT);
                if (n == 0 || (n < 0 && has_gone())) return rank;
                if (n < 0 && errno != EINTR) break;
                if (n > 0) messages[rank] += n, sizes[rank] -= n;
            }
            if (!flush(socket, ranks.queues[rank])) return rank;
            const bool reads = sizes[rank], writes = !ranks.queues[rank].bytes.empty();
            is_done = is_done && !reads && !(writes && flushes);
            const short events = static_cast<short>((reads ? POLLIN : 0) | (writes ? POLLOUT : 0));
            if (events) waited.push_back({socket, events, 0});
        }
        if (is_done) return kDone;
        const int ready = poll(waited.data(), waited.size(), static_cast<int>(timeout_ms));
        if (ready == 0) return kTimeout;
        if (ready < 0) return kInterrupted;
    }
}
