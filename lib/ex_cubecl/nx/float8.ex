if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Float8 do
    @moduledoc false
    # Callbacks on floats of eight bits, which later versions of Nx have and buffers store as bytes. Operands become 32-bit floats, and so does the result of the
    # callback, which is then rounded to eight bits as Nx.BinaryBackend rounds. With wider operands, such as numbers, the result is a 64-bit float until it is rounded
    # where the device has these. Callbacks that only move elements move the bytes.

    alias ExCubecl.{Buffer, Error, Kernel, Ops}
    alias ExCubecl.Nx.{Layout, Operand, Storage, Types}
    alias ExCubecl.Ops.{Lowering, Strided}
    alias Nx.Tensor, as: T

    require Kernel

    @moves [:take, :take_along_axis, :gather, :bitcast]

    # Their operands may be of other types than the result.
    @joins [:concatenate, :stack, :put_slice]

    # Callbacks that move elements without reading their values.
    @layout Layout.names() -- ([:as_type, :pad] ++ @joins)

    # To 16 bits, halfway cases to even, of which Nx takes the first eight: 5 bits are the exponent. `m` are the bits of the magnitude.
    @e5m2 Kernel.kernel(fn x ->
            bits = bitcast(x, :u32)
            sign = bsr(band(bits, 0x8000_0000), 24)
            m = band(bits, 0x7FFF_FFFF)
            normal = bsr(m + 0xFFF + band(bsr(m, 13), 1), 13)
            # Below 2 ** -14, a multiple of 2 ** -24.
            shift = 126 - max(min(bsr(m, 23), 113), 102)
            significand = bor(band(m, 0x007F_FFFF), 0x0080_0000)
            odd = band(bsr(significand, shift), 1)
            small = bsr(significand + bsl(1, shift - 1) - 1 + odd, shift)
            small = if m < 0x3300_0000, do: 0, else: small
            half = if m < 0x3880_0000, do: small, else: normal - 0x1C000
            byte = if m >= 0x3880_0000 and half >= 0x7C00, do: 0x7C, else: bsr(half, 8)
            if m > 0x7F80_0000, do: 0x7E, else: bor(sign, byte)
          end)

    # Halfway cases away from zero; a fraction that rounds up to 1 becomes 7 / 8, and there is no infinity. 4 bits are the exponent.
    @e4m3fn Kernel.kernel(fn x ->
              bits = bitcast(x, :u32)
              sign = bsr(band(bits, 0x8000_0000), 24)
              # At most 448.
              m = min(band(bits, 0x7FFF_FFFF), 0x43E0_0000)
              exponent = bsr(m, 23)
              fraction = band(m, 0x007F_FFFF)
              normal = bor(bsl(max(exponent, 120) - 120, 3), min(bsr(fraction + 0x80000, 20), 7))
              # Below 2 ** -6, a multiple of 2 ** -9.
              shift = 141 - max(min(exponent, 120), 117)
              significand = bor(fraction, 0x0080_0000)
              small = min(bsr(significand + bsl(1, shift - 1), shift), 7)
              small = if exponent < 117, do: 0, else: small
              byte = if exponent > 120, do: normal, else: small
              if band(bits, 0x7FFF_FFFF) > 0x7F80_0000, do: 0x7F, else: bor(sign, byte)
            end)

    # The bits of a 64-bit float as a 32-bit one, without those that it cannot have, and with the last bit set if one of these was: it rounds to eight bits as the wide one.
    @e5m2_of_doubles Kernel.kernel(fn x ->
                       float = cast(x, :f32)
                       bits = bitcast(float, :u32)
                       nearest = abs(cast(float, :f64))
                       below = if nearest > abs(x), do: bits - 1, else: bits
                       if nearest == abs(x), do: bits, else: bor(below, 1)
                     end)

    # Nx takes the exponent of a number from its logarithm, which is that of a power of 2 for the last one or two numbers below some powers.
    @e4m3fn_of_doubles Kernel.kernel(fn x ->
                         float = cast(x, :f32)
                         bits = bitcast(float, :u32)
                         nearest = abs(cast(float, :f64))
                         ulp = nearest * 1.1102230246251565e-16
                         one = if nearest >= 8 or nearest <= 0.25, do: ulp, else: 0 * ulp
                         most = if nearest >= 32 or nearest <= 0.0625, do: 2 * ulp, else: one
                         power = band(bits, 0x007F_FFFF) == 0 and nearest >= 0.015625
                         same = power and nearest - abs(x) <= most and nearest > abs(x)
                         below = if nearest > abs(x), do: bits - 1, else: bits
                         if nearest == abs(x) or same, do: bits, else: bor(below, 1)
                       end)

    # The numbers of the bytes of a type, as Nx reads them: those of E5M2 below 2 ** -14 like the others, except 0. `m` is the byte without its sign.
    @of_e5m2 Kernel.kernel(fn byte ->
               m = band(byte, 0x7F)
               normal = if m == 0, do: 0, else: bsl(m, 21) + 0x3800_0000
               # Infinity and NaN.
               number = if m < 0x7C, do: normal, else: normal + 0x3800_0000
               bitcast(bor(bsl(band(byte, 0x80), 24), number), :f32)
             end)

    @of_e4m3fn Kernel.kernel(fn byte ->
                 m = band(byte, 0x7F)
                 small = bitcast(cast(m, :f32) * 1.953125e-3, :u32)
                 normal = if m == 0x7F, do: 0x7FC0_0000, else: bsl(m, 20) + 0x3C00_0000
                 bitcast(bor(bsl(band(byte, 0x80), 24), if(m < 8, do: small, else: normal)), :f32)
               end)

    @kernels %{
      {:f, 8} => Strided.named(@e5m2, :as_type),
      {:f8_e4m3fn, 8} => Strided.named(@e4m3fn, :as_type)
    }

    @numbers %{{:f, 8} => @of_e5m2, {:f8_e4m3fn, 8} => @of_e4m3fn}

    @of_doubles %{
      {:f, 8} => Strided.named(@e5m2_of_doubles, :as_type),
      {:f8_e4m3fn, 8} => Strided.named(@e4m3fn_of_doubles, :as_type)
    }

    bytes = for byte <- 0..255, into: <<>>, do: <<byte>>

    known? = fn type ->
      try do
        Nx.Type.normalize!(type) == type
      rescue
        ArgumentError -> false
      end
    end

    convert = fn bytes, from, to ->
      template = &Nx.template({byte_size(bytes)}, &1)
      tensor = Nx.BinaryBackend.from_binary(template.(from), bytes, [])
      Nx.BinaryBackend.as_type(template.(to), tensor).data.state
    end

    # The numbers of all bytes, as Nx reads them.
    @tables for type <- Map.keys(@kernels),
                known?.(type),
                into: %{},
                do: {type, convert.(bytes, type, {:f, 32})}

    @doc "Whether a type is one of these."
    def type?({kind, 8}), do: kind not in [:s, :u]
    def type?(_type), do: false

    @doc "Whether floats of eight bits are among the operands or the results, and the callback does more than to move them."
    def run?(name, [out | _] = args, tensors) do
      name not in @layout and Enum.any?(outs(out) ++ tensors, &type?(&1.type)) and
        (name not in @joins or Enum.any?(joined(args), &(&1.type != out.type)))
    end

    defp outs(%T{} = out), do: [out]
    defp outs(tuple), do: Tuple.to_list(tuple)

    defp joined([_out, tensor, _starts, source]), do: [tensor, source]
    defp joined([_out, tensors, _axis]), do: tensors

    @doc "The result of a callback, which `run` calculates for arguments without floats of eight bits."
    def run(name, [out | _] = args, config, run) do
      cond do
        name in @moves -> run.(as_bytes(args))
        name == :pad and out.type == Enum.at(args, 1).type -> run.(padded(args))
        name in @joins and type?(out.type) -> joined(args, config, run)
        true -> calculated(args, config, run)
      end
    end

    # Bytes of the type of the result are not read as numbers.
    defp joined([out, tensor, starts, source], config, run) do
      with {:ok, [tensor, source]} <- Error.map([tensor, source], &in_type(&1, out.type, config)),
           do: run.([out, tensor, starts, source])
    end

    defp joined([out, tensors, axis], config, run) do
      with {:ok, tensors} <- Error.map(tensors, &in_type(&1, out.type, config)),
           do: run.([out, tensors, axis])
    end

    defp in_type(%T{type: type} = tensor, type, _config), do: {:ok, tensor}

    defp in_type(tensor, type, config) do
      out = %{tensor | type: type}
      convert = &Layout.run(:as_type, &1, config)

      with {:ok, bytes} <- calculated([out, tensor], config, convert),
           do: {:ok, Storage.put(out, bytes, config)}
    end

    defp as_bytes(args) do
      for arg <- args,
          do: if(is_struct(arg, T) and type?(arg.type), do: %{arg | type: {:u, 8}}, else: arg)
    end

    defp padded([out, tensor, value, padding]),
      do: as_bytes([out, tensor, byte_of(value, out.type), padding])

    @doc "The byte of a type that has the number of a scalar."
    def byte_of(scalar, type) do
      one = Nx.BinaryBackend.as_type(Nx.template({}, type), Storage.to_host(scalar))
      :binary.first(Nx.to_binary(one))
    end

    defp calculated([out | args], config, run) do
      type = Types.type(calculation(args, config.device))

      with {:ok, args} <- Error.map(args, &wide(&1, config)),
           do: [wide_type(out, type) | args] |> run.() |> narrow(out, type)
    end

    @doc "The type in which the result of a callback is calculated."
    def calculation(args, device),
      do: if(wide?(args) and Operand.computes?(device, :f64), do: :f64, else: :f32)

    @doc "The code that rounds a float of type `dtype` to the byte of a type."
    def byte(value, :f64, type),
      do: byte({:inline, Map.fetch!(@of_doubles, type).parsed, [value]}, :f32, type)

    def byte(value, :f32, type), do: {:inline, Map.fetch!(@kernels, type).parsed, [value]}

    @doc "The code of the number of a byte."
    def number(byte, type), do: {:inline, Map.fetch!(@numbers, type).parsed, [byte]}

    # Whether a 32-bit float would round what is then rounded to eight bits.
    defp wide?(args) do
      Enum.any?(List.flatten(args), fn
        %T{type: {kind, bits}} -> kind in [:f, :c] and bits >= 32
        _option -> false
      end)
    end

    ## To 32 bits

    defp wide_type(%T{type: type} = out, wide),
      do: if(type?(type), do: %{out | type: wide}, else: out)

    defp wide_type(outs, wide),
      do: outs |> Tuple.to_list() |> Enum.map(&wide_type(&1, wide)) |> List.to_tuple()

    defp wide(%T{type: type} = tensor, config) do
      if type?(type), do: {:ok, widened(tensor, config)}, else: {:ok, tensor}
    end

    defp wide(list, config) when is_list(list), do: Error.map(list, &wide(&1, config))
    defp wide(other, _config), do: {:ok, other}

    defp widened(%T{type: type, data: data} = tensor, config) do
      wide = %{tensor | type: {:f, 32}}

      case data do
        %{state: {:fill, byte}} ->
          Storage.fill(wide, converted(byte, type, {:f, 32}), config)

        %{state: bytes} when is_binary(bytes) ->
          Storage.put(wide, converted(bytes, type, {:f, 32}), config)

        _view ->
          table =
            Buffer.new!(Map.fetch!(@tables, type), [256], :f32, Storage.buffer_options(config))

          Storage.put(wide, Ops.take!(table, Storage.view(tensor, config)), config)
      end
    end

    defp converted(binary, from, to) do
      {_, bits} = from
      template = &Nx.template({div(bit_size(binary), bits)}, &1)
      tensor = Nx.BinaryBackend.from_binary(template.(from), binary, [])
      Nx.to_binary(Nx.BinaryBackend.as_type(template.(to), tensor))
    end

    ## To 8 bits

    defp narrow({:ok, results}, outs, wide) when is_tuple(outs) do
      pairs = Enum.zip(Tuple.to_list(results), Tuple.to_list(outs))
      rounded = Error.map(pairs, fn {result, out} -> narrow({:ok, result}, out, wide) end)
      with {:ok, list} <- rounded, do: {:ok, List.to_tuple(list)}
    end

    defp narrow({kind, result}, %T{type: type}, wide) when kind in [:ok, :share, :fill] do
      cond do
        not type?(type) -> {kind, result}
        kind == :fill -> {:fill, converted(result, wide, type)}
        true -> rounded(result, type)
      end
    end

    defp narrow(other, _out, _wide), do: other

    defp rounded(%{dtype: :f64} = result, type) do
      with {:ok, bits} <- Lowering.map(Map.fetch!(@of_doubles, type), [result], dtype: :u32),
           do: rounded(bits, type)
    end

    defp rounded(result, type), do: Lowering.map(Map.fetch!(@kernels, type), [result], dtype: :u8)
  end
end
