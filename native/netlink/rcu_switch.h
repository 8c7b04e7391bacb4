#pragma once

#include <string>

#include "netlink/descriptor.h"

namespace xfrmesh {

// The host's switch that makes the kernel hurry RCU grace periods along
// (Documentation/admin-guide/kernel-parameters.txt, rcupdate.rcu_expedited). It is one for all processes, so they
// count: each that has it on holds a shared lock on a file, in which the first wrote what it found; the last puts that
// back. Locks go with their holders. Were all of them killed, what they found is still in the file, and whoever comes
// next puts it back.
class RcuSwitch {
 public:
  struct Paths {
    std::string control = "/sys/kernel/rcu_expedited";
    std::string notes = "/run/xfrmesh-rcu_expedited";
  };

  RcuSwitch() = default;
  explicit RcuSwitch(Paths paths) : paths_(std::move(paths)) {}
  ~RcuSwitch() { off(); }
  RcuSwitch(const RcuSwitch&) = delete;
  RcuSwitch& operator=(const RcuSwitch&) = delete;

  // All return 0 or an errno. On where it is on, and off where it is off, do nothing.
  int on();
  int off();
  // Puts back what processes that were killed have left.
  int mend();

 private:
  Paths paths_;
  Descriptor notes_;  // open, with the lock on it, while this has the switch on
};

}  // namespace xfrmesh
