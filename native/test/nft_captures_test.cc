// What the kernel answered nft, test/data/nft.json, through what reads it here: handles, and what was refused.
#include <linux/netfilter/nf_tables.h>

#include <cerrno>
#include <regex>
#include <set>

#include "netlink/verdict.h"
#include "nft/echo.h"
#include "test/captures.h"
#include "test/check.h"

namespace xfrmesh::test {
namespace {

std::string_view capture(std::string_view name) {
  static const std::string all = readCaptures("test/data/nft.json");
  const std::string_view found = captureNamed(all, name);
  CHECK(!found.empty());
  return found;
}

// Calls `work` with each message in what was sent or received; returns their number.
template <typename Work>
int eachMessage(std::string_view fields, const Work& work) {
  int count = 0;
  for (const auto& datagram : datagramsIn(fields)) {
    Bytes rest = datagram;
    Message message{};
    for (; takeMessage(rest, message); count++) work(message);
    CHECK(rest.empty());
  }
  return count;
}

template <typename Work>
int eachAnswer(std::string_view name, const Work& work) {
  return eachMessage(fieldsBetween(capture(name), "received", "status"), work);
}

// What nft printed as handles: in its own words, or in JSON within the capture's.
std::multiset<std::uint64_t> printedHandles(std::string_view name) {
  const std::string text(fieldsBetween(capture(name), "text", ""));
  const std::regex pattern(R"(handle(?: |\\": )(\d+))");
  std::multiset<std::uint64_t> found;
  for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at)
    found.insert(std::stoull((*at)[1]));
  return found;
}

// Calls `work` with the message cut off after each number of bytes, in memory of that size: AddressSanitizer sees its
// end.
template <typename Work>
void eachCut(const Message& message, const Work& work) {
  for (std::size_t size = 0; size < message.payload.size(); size++) {
    const std::vector<std::byte> part(message.payload.begin(),
                                      message.payload.begin() + static_cast<std::ptrdiff_t>(size));
    work(Message{.header = message.header, .payload = part});
  }
}

constexpr std::string_view kEcho = "rule, echoed with its handle";
constexpr std::string_view kLists[] = {"list every rule in JSON", "list the whole guard in JSON",
                                       "masquerade: list in JSON"};

struct Refused {
  std::string_view name;
  int error;
  std::string_view about;  // what the attribute that the kernel points at holds: a name, or an expression's
};
constexpr Refused kRefused[] = {
    {"create a table that exists: EEXIST", EEXIST, "xfrmesh_58464d"},
    {"delete a chain in use: EBUSY", EBUSY, "guard-in"},
    {"delete a table that is not there: ENOENT", ENOENT, "xfrmesh_58464d"},
    {"rule that jumps to a chain that is not there: ENOENT", ENOENT, "immediate"},
    {"masquerade: delete a counter in use: EBUSY", EBUSY, "seen"},
};

bool isError(const Message& message) { return message.header.nlmsg_type == NLMSG_ERROR; }

// What stands at an offset of the request that an answer is of.
std::vector<std::byte> pointedAt(std::string_view name, const Message& answer, std::uint32_t offset) {
  std::vector<std::byte> payload;
  eachMessage(fieldsBetween(capture(name), "sent", "received"), [&](const Message& request) {
    if (request.header.nlmsg_seq != answer.header.nlmsg_seq || offset < sizeof(nlmsghdr)) return;
    Bytes rest = request.payload.subspan(offset - sizeof(nlmsghdr));
    Attribute attribute{};
    if (CHECK(takeAttribute(rest, attribute))) payload.assign(attribute.payload.begin(), attribute.payload.end());
  });
  return payload;
}

}  // namespace

TEST(handle_of_an_echoed_rule_is_the_one_that_nft_printed) {
  std::multiset<std::uint64_t> read;
  eachAnswer(kEcho, [&](const Message& message) {
    if (const std::uint64_t handle = handleOf(message)) read.insert(handle);
  });
  CHECK_EQ(read.size(), 1U);
  CHECK(read == printedHandles(kEcho));
}

TEST(handles_in_lists_are_those_that_nft_printed) {
  for (const std::string_view name : kLists) {
    std::multiset<std::uint64_t> read;
    CHECK(eachAnswer(name, [&](const Message& message) {
            if (const std::uint64_t handle = handleOf(message)) read.insert(handle);
          }) > 5);
    CHECK(read == printedHandles(name));
    if (name == kLists[0]) CHECK(read.size() > 40);
  }
}

TEST(an_answer_cut_anywhere_has_its_handle_or_none) {
  int told = 0;
  const auto cut = [&](const Message& message) {
    const std::uint64_t handle = handleOf(message);
    eachCut(message, [&](const Message& part) {
      const std::uint64_t read = handleOf(part);
      CHECK(read == 0 || read == handle);
      if (part.payload.size() < sizeof(std::uint64_t)) CHECK_EQ(read, 0U);
      told += read != 0 ? 1 : 0;
    });
  };
  eachAnswer(kEcho, cut);
  for (const std::string_view name : kLists) eachAnswer(name, cut);
  // Where it comes early, it is read whatever follows.
  CHECK(told > 0);
}

TEST(what_was_refused_is_read_with_what_it_is_about) {
  for (const Refused& refused : kRefused) {
    int refusals = 0;
    eachAnswer(refused.name, [&](const Message& message) {
      if (!isError(message)) return;
      const Verdict verdict = verdictOf(message);
      CHECK_EQ(verdict.error, refused.error);
      const auto held = pointedAt(refused.name, message, verdict.offset);
      const std::string text(reinterpret_cast<const char*>(held.data()), held.size());
      CHECK(text.find(refused.about) != std::string::npos);
      refusals++;
    });
    CHECK_EQ(refusals, 1);
  }
}

TEST(a_refusal_cut_anywhere_is_none_or_the_same) {
  for (const Refused& refused : kRefused) {
    eachAnswer(refused.name, [](const Message& message) {
      if (!isError(message)) return;
      const Verdict whole = verdictOf(message);
      eachCut(message, [&](const Message& part) {
        const Verdict verdict = verdictOf(part);
        CHECK_EQ(verdict.error, part.payload.size() < sizeof(nlmsgerr) ? EBADMSG : whole.error);
        CHECK(verdict.offset == 0 || verdict.offset == whole.offset);
      });
    });
  }
}

}  // namespace xfrmesh::test
