#include "addon/engine.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <csignal>
#include <system_error>
#include <utility>

namespace xfrmesh {

Engine::Engine(Namespace where, Socket::Options options) : where_(std::move(where)), options_(options) {}

void Engine::start(Wake wake) {
  wake_ = std::move(wake);
  rouser_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!rouser_) throw std::system_error(errno, std::generic_category(), "eventfd");
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
  work_.notify_one();
}

void Engine::cancel(std::uint32_t id) {
  const std::lock_guard lock(mutex_);
  if (running_ != nullptr && running_->id() == id) running_->cancelled = true;
  for (const auto& job : queue_) {
    if (job->id() == id) job->cancelled = true;
  }
  rouse();
}

void Engine::close() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  work_.notify_one();
  rouse();
}

// A count that is full is readable all the same.
void Engine::rouse() const { static_cast<void>(eventfd_write(rouser_.get(), 1)); }

void Engine::stop() {
  close();
  if (thread_.joinable()) thread_.join();
}

std::vector<std::unique_ptr<Job>> Engine::take(bool& ended) {
  const std::lock_guard lock(mutex_);
  ended = ended_;
  return std::exchange(done_, {});
}

void Engine::work() {
  // All that the thread holds is let go before it says that it has ended: a name it took is free by then.
  workThrough();
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  wake_();
}

void Engine::workThrough() {
  Socket socket;
  std::vector<Descriptor> held;
  RcuSwitch expedited;
  UdpEncap encap;
  Workplace place{
      .socket = socket, .where = where_, .options = options_, .held = held, .expedited = expedited, .encap = encap};
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [this] { return closing_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::unique_ptr<Job> job = std::move(queue_.front());
    queue_.pop_front();
    running_ = job.get();
    const bool skip = closing_;
    lock.unlock();
    if (skip) {
      job->skip();
    } else {
      const auto limit = std::min<std::chrono::milliseconds>(job->limit(), std::chrono::hours(24 * 365));
      job->run(place, {.deadline = Clock::now() + limit,
                       .cancelled = &job->cancelled,
                       .closing = &closing_,
                       .wake = rouser_.get()});
    }
    lock.lock();
    running_ = nullptr;
    done_.push_back(std::move(job));
    lock.unlock();
    wake_();
    lock.lock();
  }
}

}  // namespace xfrmesh
