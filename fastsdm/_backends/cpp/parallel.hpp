// Work items handed to threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <new>
#include <thread>
#include <vector>

#include "kernel.hpp"

namespace fastsdm {

// For tests: how many more threads start before starting one throws std::bad_alloc; negative for no limit.
inline std::atomic<int> threads_before_failure{-1};

// Runs item(i, worker) for every i below `items`; they are handed out in order, `grain` at a time. An item must
// not throw. Workers beyond the first cost a thread each; those that cannot be started leave their share to
// the others.
template <class Worker, class Item>
void parallel_for(Index items, Index grain, std::vector<Worker>& workers, const Item& item) {
  std::atomic<Index> next{0};
  const auto work = [&](Worker& worker) noexcept {
    for (Index begin; (begin = next.fetch_add(grain, std::memory_order_relaxed)) < items;) {
      for (Index i = begin; i < std::min(begin + grain, items); ++i) item(i, worker);
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(workers.size());
  try {
    for (std::size_t i = 1; i < workers.size(); ++i) {
      if (threads_before_failure >= 0 && threads_before_failure-- == 0) throw std::bad_alloc();
      threads.emplace_back(work, std::ref(workers[i]));
    }
  } catch (...) {
    // For want of threads (std::system_error) or memory (std::bad_alloc): a running thread must be joined.
  }
  work(workers.front());
  for (std::thread& thread : threads) thread.join();
}

}  // namespace fastsdm
