// Listening to what the kernel multicasts: events that nobody asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "netlink/exchange.h"

namespace xfrmesh {

// Joins multicast groups (XFRMNLGRP_* and their like). 0 or an errno.
int join(Socket& socket, const std::vector<std::uint32_t>& groups);

struct Heard {
  Ending ending = Ending::kComplete;
  int error = 0;
};

// Waits for events, up to Control's deadline, and hands those that have come to `receive`; a bounded number, so that
// the rest waits in the receive buffer for whoever is slow. Where that buffer overran (ENOBUFS), it is emptied, and
// then `lost` is called: what is told from then on is whole.
Heard hear(Socket& socket, const Control& control, const std::function<void(const Message&)>& receive,
           const std::function<void()>& lost);

}  // namespace xfrmesh
