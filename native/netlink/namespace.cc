#include "netlink/namespace.h"

#include <fcntl.h>
#include <sched.h>

#include <cerrno>
#include <system_error>
#include <thread>

namespace xfrmesh {

Namespace Namespace::atPath(std::string path) {
  Namespace named;
  named.own_ = false;
  named.path_ = std::move(path);
  return named;
}

Namespace Namespace::ofDescriptor(int fd) {
  Namespace named;
  named.own_ = false;
  named.fd_.reset(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!named.fd_) named.error_ = errno;
  return named;
}

Namespace Namespace::again() const {
  if (own_) return {};
  return fd_ || error_ != 0 ? ofDescriptor(fd_.get()) : atPath(path_);
}

int Namespace::openPath(Descriptor& fd) const {
  // Not to hang on a FIFO that somebody took for a namespace.
  fd.reset(open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  return fd ? 0 : errno;
}

int Namespace::run(const std::function<int()>& work, bool* entered) const {
  if (entered != nullptr) *entered = own_;
  if (own_) return work();
  if (error_ != 0) return error_;
  Descriptor opened;
  if (!fd_) {
    const int error = openPath(opened);
    if (error != 0) return error;
  }
  const int target = fd_ ? fd_.get() : opened.get();
  int result = 0;
  try {
    std::thread visitor([&] {
      if (setns(target, CLONE_NEWNET) != 0) {
        result = errno;
        return;
      }
      if (entered != nullptr) *entered = true;
      try {
        result = work();
      } catch (...) {
        // Out of memory: an exception that left the thread would end the process.
        result = ENOMEM;
      }
    });
    visitor.join();
  } catch (const std::system_error& error) {
    result = error.code().value();
  }
  return result;
}

}  // namespace xfrmesh
