#pragma once

#include <functional>
#include <string>

#include "netlink/descriptor.h"

namespace xfrmesh {

// Names a network namespace: by a path such as /run/netns/a, by a descriptor, or the process's own. Whoever asks for
// something in another namespace gets it from a thread that enters, does it and ends: no thread that goes on to other
// work is ever in a namespace not its own, whatever fails.
class Namespace {
 public:
  // The process's own.
  Namespace() = default;
  static Namespace atPath(std::string path);
  // Keeps a duplicate: the caller may close its own. On failure errno is kept, and reported by run().
  static Namespace ofDescriptor(int fd);
  // The one that this names; by path, the one that then bears it.
  [[nodiscard]] Namespace again() const;

  // Runs `work` with the calling thread, or a thread made for it, in the namespace; returns its errno, or the one that
  // kept it from being run. `entered`, if given, says whether the namespace was reached.
  int run(const std::function<int()>& work, bool* entered = nullptr) const;

 private:
  [[nodiscard]] int openPath(Descriptor& fd) const;

  std::string path_;
  Descriptor fd_;
  int error_ = 0;
  bool own_ = true;
};

}  // namespace xfrmesh
