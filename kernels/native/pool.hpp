// A pool of threads that compute parts of a loop, and wait between two loops.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace fastnt {

// A process has one pool. It is never destroyed: at exit nothing may wait for its threads. A forked child
// does not have them, and starts a pool of its own.
class Pool {
   public:
    using Body = std::function<void(std::int64_t begin, std::int64_t end)>;

    // Calls body on pieces of [0, count), at most `piece` long, from up to `threads` threads. If another
    // Python thread is using the pool, the caller computes the whole loop itself.
    static void run(int threads, std::int64_t count, std::int64_t piece, const Body &body) {
        const std::int64_t pieces = (count + piece - 1) / piece;
        threads = static_cast<int>(std::min<std::int64_t>(threads, pieces));
        Pool &pool = instance();
        std::unique_lock<std::mutex> lock(pool.busy, std::defer_lock);
        if (threads < 2 || !lock.try_lock()) {
            if (count > 0) body(0, count);
            return;
        }
        pool.share(threads - 1, count, piece, body);
    }

   private:
    static Pool &instance() {
        static std::atomic<Pool *> pool{nullptr};
        static const bool watched = [] {
#if defined(__unix__) || defined(__APPLE__)
            pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); });
#endif
            return true;
        }();
        (void)watched;
        Pool *found = pool.load();
        if (!found) {
            Pool *made = new Pool;
            if (pool.compare_exchange_strong(found, made))
                found = made;
            else
                delete made;
        }
        return *found;
    }

    void share(int helpers, std::int64_t count_, std::int64_t piece_, const Body &body_) {
        helpers = start(helpers);
        body = &body_;
        count = count_;
        piece = piece_;
        next.store(0);
        working.store(helpers);
        {
            std::lock_guard<std::mutex> guard(mutex);
            wanted = helpers;
            ++round;
        }
        wake.notify_all();
        take_pieces();
        for (int i = 0; working.load() > 0; ++i) pause(i);
    }

    // Starts threads until there are `helpers`, and returns how many there are: fewer, if the system
    // refuses to start more.
    int start(int helpers) {
        try {
            for (; started < helpers; ++started)
                std::thread(&Pool::wait_for_work, this, started, round.load()).detach();
        } catch (const std::system_error &) {
        }
        return std::min(helpers, started);
    }

    void take_pieces() {
        for (;;) {
            const std::int64_t begin = next.fetch_add(piece);
            if (begin >= count) return;
            (*body)(begin, std::min(begin + piece, count));
        }
    }

    void wait_for_work(int number, std::uint64_t seen) {
        for (;;) {
            for (int i = 0; i < SPINS + YIELDS && round.load() == seen; ++i) pause(i);
            {
                std::unique_lock<std::mutex> guard(mutex);
                wake.wait(guard, [&] { return round.load() != seen; });
                seen = round.load();
                if (number >= wanted) continue;
            }
            take_pieces();
            working.fetch_sub(1);
        }
    }

    static void pause(int i) {
        if (i > SPINS) return std::this_thread::yield();
#if defined(__x86_64__) || defined(__i386__)
        _mm_pause();
#elif defined(__aarch64__)
        __asm__ __volatile__("yield");
#endif
    }

    // A helper waits for the next loop by spinning for about 30 us, then by yielding its core for about
    // 200 us, which is longer than Python takes between two calls; then it sleeps. Waking takes 50 us.
    static constexpr int SPINS = 2000, YIELDS = 500;
    std::mutex busy, mutex;
    std::condition_variable wake;
    std::atomic<std::uint64_t> round{0};
    std::atomic<std::int64_t> next{0};
    std::atomic<int> working{0};
    const Body *body = nullptr;
    std::int64_t count = 0, piece = 1;
    int wanted = 0, started = 0;
};

}  // namespace fastnt
