#include "threads.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace outrider {
namespace {

constexpr auto kSpin = std::chrono::milliseconds(1);
constexpr int kPausesPerLook = 64;     // at the clock, while idle
constexpr int kPausesBeforeYield = 4096;  // in a barrier: then there are more threads than free cores

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Threads::Threads(int count) : count_(count) {
  for (int i = 1; i < count; ++i) others_.emplace_back([this, i] { work(i); });
}

Threads::~Threads() {
  stopping_ = true;
  started_.fetch_add(1, std::memory_order_release);
  started_.notify_all();
  for (auto& thread : others_) thread.join();
}

void Threads::run(const std::function<void(int)>& body) {
  const std::lock_guard lock(one_body_);
  const auto nothing = [] {};
  body_ = &body;
  started_.fetch_add(1, std::memory_order_release);
  started_.notify_all();
  body(0);
  barrier(nothing);
}

void Threads::work(int thread) {
  uint32_t seen = 0;
  while (true) {
    const auto until = std::chrono::steady_clock::now() + kSpin;
    while (started_.load(std::memory_order_acquire) == seen && std::chrono::steady_clock::now() < until)
      for (int i = 0; i < kPausesPerLook && started_.load(std::memory_order_relaxed) == seen; ++i) pause();
    started_.wait(seen, std::memory_order_acquire);
    ++seen;
    if (stopping_) return;
    (*body_)(thread);
    barrier([] {});
  }
}

void Threads::wait_for_phase(uint32_t now) const {
  for (int i = 0; phase_.load(std::memory_order_acquire) == now; ++i) {
    if (i < kPausesBeforeYield) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace outrider
