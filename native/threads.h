// Threads that run one body together, with barriers in it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace outrider {

// `count` threads, the caller's among them. Between bodies the others spin for about a millisecond, which
// covers the gap between two steps of decoding, and then sleep. Bodies of one pool run one after the other.
class Threads {
 public:
  explicit Threads(int count);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int count() const { return count_; }
  void run(const std::function<void(int thread)>& body);

  // Within a body: wait for all threads. The last one to come calls `last` before the others go on.
  template <typename Last>
  void barrier(const Last& last) {
    const uint32_t now = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
      arrived_.store(0, std::memory_order_relaxed);
      last();
      phase_.store(now + 1, std::memory_order_release);
    } else {
      wait_for_phase(now);
    }
  }

 private:
  void work(int thread);
  void wait_for_phase(uint32_t now) const;

  const int count_;
  const std::function<void(int)>* body_ = nullptr;
  bool stopping_ = false;
  std::mutex one_body_;
  alignas(64) std::atomic<uint32_t> started_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  std::vector<std::thread> others_;
};

}  // namespace outrider
