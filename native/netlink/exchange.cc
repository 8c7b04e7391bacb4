#include "netlink/exchange.h"

namespace xfrmesh {

Ending Control::check() const {
  if (closing != nullptr && closing->load(std::memory_order_relaxed)) return Ending::kClosed;
  if (cancelled != nullptr && cancelled->load(std::memory_order_relaxed)) return Ending::kCancelled;
  return Clock::now() >= deadline ? Ending::kLate : Ending::kComplete;
}

}  // namespace xfrmesh
