#include "addon/engine.h"

#include <csignal>

namespace xfrmesh {

void Engine::start(Finished finished) {
  finished_ = std::move(finished);
  // Signals are the JavaScript thread's to handle.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] { work(); });
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Engine::submit(std::unique_ptr<Job> job) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(job));
  }
  wake_.notify_one();
}

void Engine::cancel(std::uint32_t id) {
  const std::lock_guard lock(mutex_);
  if (running_ != nullptr && running_->id() == id) running_->cancelled = true;
  for (const auto& job : queue_) {
    if (job->id() == id) job->cancelled = true;
  }
}

void Engine::close() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_one();
}

void Engine::stop() {
  close();
  if (thread_.joinable()) thread_.join();
}

void Engine::work() {
  {
    // All that the thread holds goes before it reports its end: a name taken is free once close() has resolved.
    Socket socket;
    std::vector<Descriptor> held;
    Workplace place{.socket = socket, .where = where_, .options = options_, .held = held};
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return closing_ || !queue_.empty(); });
      if (queue_.empty()) break;
      std::unique_ptr<Job> job = std::move(queue_.front());
      queue_.pop_front();
      running_ = job.get();
      const bool skip = closing_;
      lock.unlock();
      if (skip) {
        job->skip();
      } else {
        const auto now = Clock::now();
        const auto limit = std::min<std::chrono::milliseconds>(job->limit(), std::chrono::hours(24 * 365));
        job->run(place, {.deadline = now + limit, .cancelled = &job->cancelled, .closing = &closing_});
      }
      lock.lock();
      running_ = nullptr;
      lock.unlock();
      finished_(std::move(job));
      lock.lock();
    }
  }
  finished_(nullptr);
}

}  // namespace xfrmesh
