%% The workloads of tests/bench/actors.c on Erlang. Prints one JSON object: figures a second, bytes
%% of an idle process.
%%
%%     erl -noinput +P 2000000 -eval 'actors:main(Which, Part)' -s erlang halt
%%
%% Which: one, what a single scheduler runs (+S 1:1), or all. Part: a share of the usual counts.
-module(actors).
-export([main/2]).

main(Which, Part) ->
    Figures = [{Name, Run(fun(Count) -> max(1000, round(Count * Part)) end)}
               || {Name, Run} <- workloads(Which)],
    Texts = [io_lib:format("\"erlang.~s\": ~.1f", [Name, float(Value)])
             || {Name, Value} <- Figures],
    io:format("{~s}~n", [lists:join(", ", Texts)]).

workloads(one) ->
    [{bytes, fun(_) -> idle_bytes(100000) end},
     {ping_pong, fun(Share) -> wandering(2, 1, Share(3000000)) end},
     {ping_pong_many, fun(Share) -> wandering(2, 100, Share(5000000)) end},
     {random_thousand, fun(Share) -> wandering(1000, 4000, Share(5000000)) end},
     {random_million, fun(Share) -> wandering(1000000, 1000, Share(2000000)) end},
     {lives, fun(Share) -> lives(Share(300000)) end}];
workloads(all) ->
    [{random_thousand_all, fun(Share) -> wandering(1000, 4000, Share(5000000)) end},
     {random_million_all, fun(Share) -> wandering(1000000, 1000, Share(2000000)) end},
     {many_to_one, fun(Share) -> many_to_one(Share(1000000)) end},
     {skynet, fun(_) -> skynet() end}].

rate(Count, Run) ->
    Start = erlang:monotonic_time(),
    Run(),
    Took = erlang:monotonic_time() - Start,
    Count * erlang:convert_time_unit(1, second, native) / Took.

repeat(0, _) -> ok;
repeat(Count, Run) -> Run(), repeat(Count - 1, Run).

%% ---- letters that wander ----------------------------------------------------------------------

%% A letter is {hops left, random number}.
wandering(Actors, Letters, Count) ->
    Self = self(),
    All = list_to_tuple([spawn(fun() -> wait_for_peers(Self) end) || _ <- lists:seq(1, Actors)]),
    persistent_term:put(all, All), % so that it is not copied for each
    [Pid ! go || Pid <- tuple_to_list(All)],
    repeat(Actors, fun() -> receive ready -> ok end end),
    Hops = Count div Letters,
    Rate = rate(Count, fun() ->
        [element(Number rem Actors + 1, All) ! {Hops, Number * 2654435761 band 16#ffffffff}
         || Number <- lists:seq(0, Letters - 1)],
        repeat(Letters, fun() -> receive finished -> ok end end)
    end),
    [exit(Pid, kill) || Pid <- tuple_to_list(All)],
    Rate.

wait_for_peers(Collector) ->
    receive go -> ok end,
    All = persistent_term:get(all),
    Collector ! ready,
    case All of
        {First, Second} when First =:= self() -> play(Collector, Second);
        {First, _} -> play(Collector, First);
        _ -> wander(Collector, All)
    end.

play(Collector, Other) ->
    receive
        {0, _} -> Collector ! finished;
        {Left, Random} -> Other ! {Left - 1, Random}
    end,
    play(Collector, Other).

wander(Collector, All) ->
    receive
        {0, _} -> Collector ! finished;
        {Left, Random} ->
            Next = (Random * 1664525 + 1013904223) band 16#ffffffff,
            element((Next * tuple_size(All)) bsr 32 + 1, All) ! {Left - 1, Next}
    end,
    wander(Collector, All).

%% ---- many to one, lives -----------------------------------------------------------------------

many_to_one(Count) ->
    Self = self(),
    Target = spawn(fun() -> repeat(2 * Count, fun() -> receive letter -> ok end end),
                            Self ! finished end),
    rate(2 * Count, fun() ->
        [spawn(fun() -> repeat(Count, fun() -> Target ! letter end) end) || _ <- [1, 2]],
        receive finished -> ok end
    end).

lives(Count) ->
    Self = self(),
    rate(Count, fun() ->
        repeat(Count div 8, fun() ->
            Pids = [spawn(fun() -> receive letter -> Self ! finished end end)
                    || _ <- lists:seq(1, 8)],
            [Pid ! letter || Pid <- Pids],
            repeat(8, fun() -> receive finished -> ok end end)
        end)
    end).

%% ---- Skynet, memory ---------------------------------------------------------------------------

skynet() ->
    Leaves = 1000000,
    rate(Leaves, fun() ->
        node_of(self(), 0, Leaves),
        receive 499999500000 -> ok end
    end).

node_of(Parent, First, 1) ->
    spawn(fun() -> Parent ! First end);
node_of(Parent, First, Size) ->
    spawn(fun() ->
        Part = Size div 10,
        [node_of(self(), First + Number * Part, Part) || Number <- lists:seq(0, 9)],
        Parent ! lists:sum([receive Sum -> Sum end || _ <- lists:seq(1, 10)])
    end).

idle_bytes(Count) ->
    Before = erlang:memory(total),
    Pids = [spawn(fun() -> receive never -> ok end end) || _ <- lists:seq(1, Count)],
    Bytes = (erlang:memory(total) - Before) / Count,
    [exit(Pid, kill) || Pid <- Pids],
    Bytes.
