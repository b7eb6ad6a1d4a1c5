#include "threads.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace outrider {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kSpin = std::chrono::milliseconds(1);
constexpr int kPausesPerLook = 64;        // at the clock, between runs
constexpr int kPausesBeforeYield = 4096;  // while others hold the last tasks: perhaps they wait for this core
constexpr int kShare = 8;                 // a thread takes an eighth of what it has left

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The register that says how this thread rounds and whether it flushes subnormal numbers to zero.
#if defined(__x86_64__)
constexpr uint64_t kDefaultFloats = 0x1f80;  // the exceptions masked, as they always are
uint64_t float_control() { return _mm_getcsr(); }
void set_float_control(uint64_t value) { _mm_setcsr(static_cast<unsigned>(value)); }
#elif defined(__aarch64__)
constexpr uint64_t kDefaultFloats = 0;
uint64_t float_control() {
  uint64_t value;
  asm volatile("mrs %0, fpcr" : "=r"(value));
  return value;
}
void set_float_control(uint64_t value) { asm volatile("msr fpcr, %0" : : "r"(value) : "memory"); }
#else
constexpr uint64_t kDefaultFloats = 0;
uint64_t float_control() { return 0; }
void set_float_control(uint64_t) {}
#endif

// Threads take tasks in lots: of one task each, unless a stage has more than can be counted here.
//
// Three numbers that change together, in bits: 30 serial number of a stage, 17 and 17. Those of a part are the first
// and last of its lots that nobody has begun; those of a stage are who began it and how many lots it has. Since a
// part says of which stage it is, a thread that was put aside takes no lots of a stage that it has not seen begin.
constexpr int kLotBits = 17;
constexpr int kMaxLots = (1 << kLotBits) - 1;
constexpr uint64_t kSerialMask = (uint64_t{1} << 30) - 1;

uint64_t numbers(uint64_t serial, int low, int high) {
  return (serial & kSerialMask) << 2 * kLotBits | static_cast<uint64_t>(low) << kLotBits | static_cast<uint64_t>(high);
}
uint64_t serial_of(uint64_t numbers) { return numbers >> 2 * kLotBits; }
int low_of(uint64_t numbers) { return static_cast<int>(numbers >> kLotBits) & kMaxLots; }
int high_of(uint64_t numbers) { return static_cast<int>(numbers) & kMaxLots; }

#if defined(__unix__) || defined(__APPLE__)
long this_process() { return getpid(); }
#else
long this_process() { return 0; }  // the system does not copy processes
#endif

int divide_up(int n, int by) { return (n + by - 1) / by; }
int tasks_per_lot(int tasks) { return divide_up(tasks, kMaxLots); }

}  // namespace

DefaultFloats::DefaultFloats() : before_(float_control()) { set_float_control(kDefaultFloats); }

DefaultFloats::~DefaultFloats() { set_float_control(before_); }

Threads::Threads(int count) : count_(count), process_(this_process()), parts_(static_cast<size_t>(count)) {
  try {
    for (int i = 1; i < count; ++i) others_.emplace_back([this, i] { work(i); });
  } catch (const std::exception& error) {
    const std::string started = std::to_string(others_.size() + 1);
    stop();
    throw std::runtime_error("count = " + std::to_string(count) + ": the system has only " + started +
                             " threads (" + error.what() + ")");
  }
}

Threads::~Threads() { stop(); }

void Threads::stop() {
  if (this_process() != process_) {
    // They can be neither joined nor detached where they never ran: left as they are, and never destroyed.
    new std::vector<std::thread>(std::move(others_));
    return;
  }
  stopping_.store(true, std::memory_order_relaxed);
  started_.fetch_add(1, std::memory_order_release);
  started_.notify_all();
  for (auto& thread : others_) thread.join();
}

void Threads::check_process() const {
  if (this_process() != process_)
    throw std::runtime_error("the threads were started in process " + std::to_string(process_) +
                             ", and a fork of it, as process " + std::to_string(this_process()) +
                             " is, has none of them; load the model in the process that runs it");
}

void Threads::run(const std::vector<int>& tasks, const Body& body) {
  check_process();
  const std::lock_guard lock(one_run_);
  tasks_ = &tasks;
  body_ = &body;
  first_ = end_;
  end_ = first_ + tasks.size();
  begin_stage(first_, 0);
  started_.fetch_add(1, std::memory_order_release);
  started_.notify_all();
  do_all(0);
}

void Threads::each(int count, const std::function<void(int task, int thread)>& body) {
  if (count == 0) return;
  if (count == 1) return body(0, 0);
  run({count}, [&body](int, int first, int last, int thread) {
    for (int task = first; task < last; ++task) body(task, thread);
  });
}

// The first stage from `serial` on that has tasks, or the run's end, which is a stage of no lots.
void Threads::begin_stage(uint64_t serial, int starter) {
  while (serial < end_ && (*tasks_)[serial - first_] == 0) ++serial;
  const int tasks = serial < end_ ? (*tasks_)[serial - first_] : 0;
  const int lots = tasks > 0 ? divide_up(tasks, tasks_per_lot(tasks)) : 0;
  done_.store(0, std::memory_order_relaxed);
  stage_.store(numbers(serial, starter, lots), std::memory_order_release);
}

// The lots that a thread begins a stage with. Where there are fewer than threads, who began the stage has the first:
// it does a single task itself, before any other thread has seen that there is one.
Threads::Lots Threads::part_of(uint64_t stage, int thread) const {
  const int starter = low_of(stage), lots = high_of(stage);
  if (lots < count_) {
    const int place = (thread - starter + count_) % count_;
    return {std::min(place, lots), std::min(place + 1, lots)};
  }
  const auto bound = [&](int part) { return static_cast<int>(int64_t{lots} * part / count_); };
  return {bound(thread), bound(thread + 1)};
}

// Takes those lots of the part of thread `of` that `keep` does not leave there; none if others were faster.
template <typename Keep>
Threads::Lots Threads::take(uint64_t stage, int of, const Keep& keep) {
  std::atomic<uint64_t>& part = parts_[static_cast<size_t>(of)].left;
  for (uint64_t left = part.load(std::memory_order_acquire);;) {
    Lots lots{low_of(left), high_of(left)};
    if (serial_of(left) != serial_of(stage)) {
      // Nobody has begun the part, unless the stage is over and the number is of a later one.
      if (stage_.load(std::memory_order_relaxed) != stage) return {0, 0};
      lots = part_of(stage, of);
    }
    if (lots.count() == 0) return lots;
    const auto [kept, taken] = keep(lots);
    if (part.compare_exchange_weak(left, numbers(serial_of(stage), kept.first, kept.last), std::memory_order_acq_rel,
                                   std::memory_order_acquire))
      return taken;
  }
}

// The next few of its own lots: fewer and fewer, so that there is something left to take for who is through.
Threads::Lots Threads::take_own(uint64_t stage, int thread) {
  return take(stage, thread, [](const Lots& lots) {
    const int middle = lots.first + divide_up(lots.count(), kShare);
    return std::pair(Lots{middle, lots.last}, Lots{lots.first, middle});
  });
}

// Half of what another has left. All but the first few become the thread's own part, where others find them.
Threads::Lots Threads::take_from_others(uint64_t stage, int thread) {
  for (int i = 1; i < count_; ++i) {
    const Lots lots = take(stage, (thread + i) % count_, [](const Lots& lots) {
      const int middle = lots.first + lots.count() / 2;
      return std::pair(Lots{lots.first, middle}, Lots{middle, lots.last});
    });
    if (lots.count() == 0) continue;
    const int middle = lots.first + divide_up(lots.count(), kShare);
    parts_[static_cast<size_t>(thread)].left.store(numbers(serial_of(stage), middle, lots.last),
                                                   std::memory_order_release);
    return {lots.first, middle};
  }
  return {0, 0};
}

// Takes lots of the stage and does them, until its own part is empty. False if there was nothing to take.
bool Threads::do_some(uint64_t stage, int thread) {
  Lots lots = take_own(stage, thread);
  if (lots.count() == 0) lots = take_from_others(stage, thread);
  if (lots.count() == 0) return false;
  const int number = static_cast<int>((serial_of(stage) - first_) & kSerialMask);
  const int tasks = (*tasks_)[static_cast<size_t>(number)], size = tasks_per_lot(tasks);
  int done = 0;
  for (; lots.count() > 0; lots = take_own(stage, thread)) {
    (*body_)(number, lots.first * size, std::min(tasks, lots.last * size), thread);
    done += lots.count();
  }
  if (done_.fetch_add(done, std::memory_order_acq_rel) + done == high_of(stage))
    begin_stage(first_ + static_cast<uint64_t>(number) + 1, thread);
  return true;
}

void Threads::work(int thread) {
  const DefaultFloats floats;
  for (;;) {
    // In this order: who stops us counts `started_` up after `stopping_`, so that waiting ends at once.
    const uint32_t seen = started_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    do {
      do_all(thread);
    } while (begins_soon());
    started_.wait(seen, std::memory_order_acquire);
  }
}

// Does tasks until no run has any to come. A thread that finds none to take does not sleep before that: the
// others may hold long ones, and the next stage's begin when those are done.
void Threads::do_all(int thread) {
  uint64_t stage;
  for (int idle = 0; high_of(stage = stage_.load(std::memory_order_acquire)) != 0; ++idle) {
    if (do_some(stage, thread)) {
      idle = 0;
    } else if (idle < kPausesBeforeYield) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

// Whether a run begins within `kSpin`.
bool Threads::begins_soon() const {
  const auto until = Clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (high_of(stage_.load(std::memory_order_acquire)) != 0) return true;
      pause();
    }
  } while (Clock::now() < until);
  return false;
}

}  // namespace outrider
