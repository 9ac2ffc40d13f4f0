# Compiled if Phoenix.LiveDashboard is available.
if Code.ensure_loaded?(Phoenix.LiveDashboard.PageBuilder) do
  defmodule ExCubecl.LiveDashboard do
    @moduledoc """
    A page for `Phoenix.LiveDashboard`: who has the memory of each device, which kernels run, and what Nx runs on the host. The module exists where
    `:phoenix_live_dashboard` is a dependency.

        live_dashboard "/dashboard", additional_pages: [ex_cubecl: ExCubecl.LiveDashboard]

    It shows the node that is selected in the dashboard, if that runs ExCubecl.
    """

    use Phoenix.LiveDashboard.PageBuilder

    alias ExCubecl.Dashboard.Top
    alias ExCubecl.Memory.Chart

    @impl true
    def init(_options), do: {:ok, %{}, module: Top}

    @impl true
    def menu_link(_session, %{modules: modules}),
      do: if(Top in modules, do: {:ok, "ExCubecl"}, else: {:disabled, "ExCubecl"})

    @impl true
    def mount(_params, _session, socket), do: {:ok, updated(assign(socket, before: nil))}

    @impl true
    def handle_refresh(socket), do: {:noreply, updated(socket)}

    defp updated(%{assigns: %{page: %{node: node}, before: before}} = socket) do
      case Top.ask(node) do
        {:ok, snapshot} ->
          devices =
            for device <- Top.describe(snapshot, before), do: {device, picture(node, device)}

          assign(socket, before: snapshot, devices: devices, error: nil)

        {:error, text} ->
          assign(socket, devices: [], error: text)
      end
    end

    # A busy device does not answer.
    defp picture(_node, %{usage: nil}), do: ""

    defp picture(node, %{id: id}) do
      device = if node == node(), do: id, else: {node, id}

      with {:ok, chart} <- Chart.map(device: device), {:ok, svg} <- Chart.svg(chart) do
        svg
      else
        {:error, error} -> error |> Exception.message() |> Chart.Svg.escape()
      end
    end

    @impl true
    def render(assigns) do
      ~H"""
      <p :if={@error}><%= @error %></p>
      <p :if={@error == nil and @devices == []}>No device is open on this node: nothing was made there yet.</p>
      <div :for={{device, picture} <- @devices}>
        <h5 class="card-title"><%= device.title %></h5>
        <.row>
          <:col><.card title="Live"><%= device.live %></.card></:col>
          <:col><.card title="Kernels"><%= device.kernels %></.card></:col>
          <:col><.card title="Queue wait"><%= device.wait %></.card></:col>
        </.row>
        <div class="card mb-4"><div class="card-body" style="overflow-x:auto"><%= Phoenix.HTML.raw(picture) %></div></div>
        <div :for={table <- device.tables} class="card mb-4">
          <div class="card-body p-0">
            <table class="table table-hover mt-0 dash-table">
              <thead><tr><th :for={title <- table.titles}><%= title %></th></tr></thead>
              <tbody>
                <tr :for={row <- table.rows}><td :for={cell <- row}><%= cell %></td></tr>
              </tbody>
            </table>
          </div>
        </div>
      </div>
      """
    end
  end
end
