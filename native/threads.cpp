#include "threads.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace outrider {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kSpin = std::chrono::milliseconds(1);
constexpr int kPausesPerLook = 64;        // at the clock, while idle
constexpr int kPausesBeforeYield = 4096;  // while others hold the last tasks: perhaps they wait for this core
constexpr int kShares = 4;                // that a thread takes of a stage, or more of smaller ones

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A state, in bits: 30 serial number, 17 tasks, 17 taken. Taking tasks adds to it, if nobody else changed it; the
// serial number keeps a thread that was put aside from taking tasks of a stage that it has not seen begin.
constexpr int kTaskBits = 17;
constexpr uint64_t kSerialMask = (uint64_t{1} << 30) - 1;

uint64_t state_of(uint64_t serial, int tasks) {
  return (serial & kSerialMask) << 2 * kTaskBits | static_cast<uint64_t>(tasks) << kTaskBits;
}
uint64_t serial_of(uint64_t state) { return state >> 2 * kTaskBits; }
int tasks_of(uint64_t state) { return static_cast<int>(state >> kTaskBits) & Threads::kMaxTasks; }
int taken_of(uint64_t state) { return static_cast<int>(state) & Threads::kMaxTasks; }

}  // namespace

Threads::Threads(int count) : count_(count) {
  for (int i = 1; i < count; ++i) others_.emplace_back([this, i] { work(i); });
}

Threads::~Threads() {
  stopping_.store(true, std::memory_order_relaxed);
  started_.fetch_add(1, std::memory_order_release);
  started_.notify_all();
  for (auto& thread : others_) thread.join();
}

void Threads::run(const std::vector<int>& tasks, const Body& body) {
  for (const int n : tasks)
    if (n > kMaxTasks) throw std::length_error(std::to_string(n) + " tasks of one operation; make the batch smaller");
  const std::lock_guard lock(one_run_);
  tasks_ = &tasks;
  body_ = &body;
  first_ = end_;
  end_ = first_ + tasks.size();
  begin_stage(first_);
  started_.fetch_add(1, std::memory_order_release);
  started_.notify_all();
  const uint64_t last = end_ & kSerialMask;
  uint64_t state;
  for (int idle = 0; serial_of(state = state_.load(std::memory_order_acquire)) != last; ++idle) {
    if (do_some(state, 0)) {
      idle = 0;
    } else if (idle < kPausesBeforeYield) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

// The first stage from `serial` on that has tasks, or the run's end.
void Threads::begin_stage(uint64_t serial) {
  while (serial < end_ && (*tasks_)[serial - first_] == 0) ++serial;
  const int tasks = serial < end_ ? (*tasks_)[serial - first_] : 0;
  done_.store(0, std::memory_order_relaxed);
  state_.store(state_of(serial, tasks), std::memory_order_release);
}

// Takes tasks of the stage and does them. False if all were taken, or if another thread was faster.
bool Threads::do_some(uint64_t state, int thread) {
  const int tasks = tasks_of(state), first = taken_of(state);
  if (first == tasks) return false;
  const int share = std::max(1, (tasks - first) / (kShares * count_));
  if (!state_.compare_exchange_weak(state, state + static_cast<uint64_t>(share), std::memory_order_acq_rel,
                                    std::memory_order_relaxed))
    return false;
  const int stage = static_cast<int>((serial_of(state) - first_) & kSerialMask);
  (*body_)(stage, first, first + share, thread);
  if (done_.fetch_add(share, std::memory_order_acq_rel) + share == tasks)
    begin_stage(first_ + static_cast<uint64_t>(stage) + 1);
  return true;
}

void Threads::work(int thread) {
  while (!stopping_.load(std::memory_order_relaxed)) {
    const uint32_t seen = started_.load(std::memory_order_acquire);
    auto until = Clock::now() + kSpin;
    for (auto now = Clock::now(); now < until; now = Clock::now()) {
      for (int i = 0; i < kPausesPerLook; ++i) {
        if (do_some(state_.load(std::memory_order_acquire), thread)) {
          until = now + kSpin;
        } else {
          pause();
        }
      }
    }
    started_.wait(seen, std::memory_order_acquire);
  }
}

}  // namespace outrider
